"""HTTP: the inbound route and the delivery API. Handlers parse, call and present; `problems` alone maps errors to HTTP."""
