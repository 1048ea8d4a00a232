"""The fields of units, their pictures, and what the engine gets of both."""
