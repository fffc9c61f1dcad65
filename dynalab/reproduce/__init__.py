"""Papers as experiments that anyone can run: claim sheets, and what becomes of their claims here."""
