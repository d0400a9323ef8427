"""What tests share: small inputs, formulas written out, runs of the command line, planted misbehaviour."""
