"""The main job on data made here: two short trainings, one of them led astray on purpose, logged and compared."""
