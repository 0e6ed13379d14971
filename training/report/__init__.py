"""What a run says to people: the HTML report, its plots and the model card."""
