"""What is no stage of the flow but helps to see it."""
