"""Weight files of any model: which one it is, what it holds, how much memory that takes."""
