"""What sqlfluff's templater knows of dbt's own macros: enough that the SQL around them parses."""


def datediff(first: str, second: str, part: str) -> str:
    return f"datediff('{part}', {first}, {second})"
