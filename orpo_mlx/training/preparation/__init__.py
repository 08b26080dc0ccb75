"""What `training/prepare.py` puts together: objective, adapted model, plan, reference."""
