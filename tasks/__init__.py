"""Audit steps as Prefect tasks, one a module: the store, MLflow and DVC data meet the engine here."""
