# The same words as `python3 tasks.py WORD`, for those who have make.
PYTHON ?= python3

.PHONY: demo test survive test-comfyui lint types format bench train table clean
demo test survive test-comfyui lint types format bench train table clean:
	@$(PYTHON) tasks.py $@ $(ARGS)
