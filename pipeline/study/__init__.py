"""A study under judgement: trained models, stores and the people never trained on."""
