"""FAPO inside verl: reward function, advantages, record. verl loads these modules by name; train_verl.py names them."""
