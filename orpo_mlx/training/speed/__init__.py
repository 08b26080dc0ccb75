"""How steps are computed fast: `plan` decides it, `trial` tries whether compiling pays."""
