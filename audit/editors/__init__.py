"""The editors: how the update of one fact is computed. None of them writes a weight; transactions do."""
