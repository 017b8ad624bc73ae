fm_fuzz(fuzz_plot LINKS plot)
