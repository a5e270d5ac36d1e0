"""What an inspection costs, beside what a user would pick instead."""
