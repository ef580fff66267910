"""Recurrences whose gates depend on the input, one operator a file: public function, private body, step."""
