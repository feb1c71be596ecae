"""Reports: tables, pictures and files for people."""
