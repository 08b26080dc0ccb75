"""Whether a run has helped: verdict, intervals, drift, answers, what to do next."""
