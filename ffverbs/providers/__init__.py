"""Modules of hardware drivers: they can be imported, and what they hold raises EOPNOTSUPP when used."""
