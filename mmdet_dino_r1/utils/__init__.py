"""What every ring uses: stacks, environment, safe and atomic files, randomness, device copies."""
