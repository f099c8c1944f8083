"Builds the package from settings.ini, the one place where its name, version and requirements are written."
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

parser = ConfigParser(delimiters=['='])
parser.read('settings.ini', encoding='utf-8')
cfg = parser['DEFAULT']
extras = {name: cfg[f'{name}_requirements'].split() for name in ('dev', 'bench', 'docs', 'export', 'cluster')}
readme = Path('README.md')

setup(
    name=cfg['lib_name'], version=cfg['version'], description=cfg['description'], license='Apache-2.0',
    author=cfg['author'], author_email=cfg['author_email'], keywords=cfg['keywords'], url=cfg['git_url'],
    long_description=readme.read_text(encoding='utf-8') if readme.exists() else '',
    long_description_content_type='text/markdown',
    packages=find_packages(include=['p2net', 'p2net.*']), include_package_data=True,
    package_data={'p2net': ['**/*.json', '**/*.csv', '**/*.yaml', '**/*.safetensors']},
    python_requires=f">={cfg['min_python']}", install_requires=cfg['requirements'].split(),
    extras_require=extras, entry_points={'console_scripts': cfg['console_scripts'].split()}, zip_safe=False)
