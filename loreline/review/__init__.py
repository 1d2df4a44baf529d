"""People's judgement of trajectories and pairs: the queue in Postgres, and the page."""
