"""Signatures of envelopes: who may have tasks executed is then a question of keys, not of access to topics."""
