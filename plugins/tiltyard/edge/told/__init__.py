"""Who is told what, and when: `facts` (what there is to tell, from the board) → `deciding` (at once, in the morning, or
not yet; pure) → `texts` (how it reads), `webhook` (for other systems) → `telling` (a look, and what is sent)."""
