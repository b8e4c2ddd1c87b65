"""The command line. stdout carries data, stderr the rest."""
