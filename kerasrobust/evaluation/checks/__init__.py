"""The audit's checks: reasons to doubt a robust accuracy. One file a kind; `evaluation.audit` lists them."""
