"""Object stores behind one protocol. Everything here blocks: call it in a thread."""
