"""Speed, beside the released code: python -m rsnlib bench."""
