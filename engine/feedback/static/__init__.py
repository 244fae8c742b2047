"""What can be seen of a program and its task before anything is run: findings, sizes in tokens, and a digest."""
