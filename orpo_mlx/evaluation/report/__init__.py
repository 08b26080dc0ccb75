"""A judgement as a page to send on: `report` puts `examples` beside what `page` draws."""
