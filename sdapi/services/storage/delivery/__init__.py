"""How files that are on local disk reach their object stores: recorded, uploaded, renamed."""
