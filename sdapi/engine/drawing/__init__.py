"""A generation job while it is drawn: its models, its passes, its pictures, and what they tell."""
