"""Everything that takes bytes or text from outside, with inputs that look for code nobody has been through yet."""
