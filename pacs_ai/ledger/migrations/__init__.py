"""How the ledger came to its present schema: Alembic's environment and its steps."""
