"""Where in the brain two volumes differ, and by how much: tables, tests and maps by region."""
