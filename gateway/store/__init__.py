"""The only place that speaks SQL. Every change of state goes through the journal; reads never share code with writes."""
