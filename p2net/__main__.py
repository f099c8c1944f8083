"`python -m p2net` is the command `p2net`."
from p2net.cli import main

raise SystemExit(main())
