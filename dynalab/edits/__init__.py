"""What is done to the state of training where a fork leaves its parent, a module an edit."""
