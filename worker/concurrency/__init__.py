"""How many images the judge is asked about at once, and how many claims are in hand for that."""
