"""Serving and stopping: uvicorn, what begins and ends with the application, and how both stop."""
