"""How a call finds its kernel: settings, plugins, eligibility, and the plans that are kept."""
