"""What every store on a Redis that several servers share needs."""
