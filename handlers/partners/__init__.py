"""The services outside of the house: where they are, how they are called, how calls are signed."""
