"""Operating a lakehouse: is it alive, whole and tidy, and what needs somebody's attention."""
