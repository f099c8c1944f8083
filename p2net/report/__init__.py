"""The paper's claims, tables and figures from records, nothing trained here."""
