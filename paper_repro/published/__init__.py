"""What each paper published beside what is recorded here: the tables of RESULTS.md."""
