"""Pictures that drawing is guided by: pose, identity, one face laid over another."""
