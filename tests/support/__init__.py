"""What tests of several rooms share: small volumes, tiny models, made-up files, the program."""
