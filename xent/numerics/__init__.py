"""The mathematics of xent, in array API terms only: every function takes the namespace ``xp`` first."""
