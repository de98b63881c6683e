"""Static checks of foreign files: pickles, archives, exported programs, spreadsheet formulas, imports."""
