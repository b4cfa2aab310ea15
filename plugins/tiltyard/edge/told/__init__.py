"""Who is told what, and when: `facts` (what there is to tell, from the board) → `deciding` (at once, in the morning, or
not yet; pure) → `texts` (how it reads) → `telling` (a look, and what is sent)."""
